"""Changes to whisper.cpp that `make engine` applies to its source, as replacements of text that occurs once.

- OpenVINO's encoder gets the threads of the call, and its failure fails the call.
- One context serves plain and word-timed calls: alignment works beside flash attention, and only where it is asked for.
"""

from __future__ import annotations

CHANGES: tuple[tuple[str, str], ...] = (
    (
        "            whisper_openvino_encode(wstate.ctx_openvino, mel, wstate.embd_enc);\n",
        "            if (!whisper_openvino_encode(wstate.ctx_openvino, mel, wstate.embd_enc, n_threads)) {\n"
        "                return false;\n"
        "            }\n",
    ),
    (
        "    if (params.flash_attn && params.dtw_token_timestamps) {\n",
        "    if (false) {  // alignment works beside flash attention\n",
    ),
    (
        "if (ctx->params.dtw_token_timestamps && n_segments) {",
        "if (ctx->params.dtw_token_timestamps && params.token_timestamps && n_segments) {",
    ),
    (
        "                cur = ggml_flash_attn_ext(ctx0, Q, Kcross, Vcross, nullptr, KQscale, 0.0f, 0.0f);\n",
        """\
                // flash attention does not keep the weights, so the aligned heads compute them again
                const bool aligned = save_alignment_heads_QKs && wctx.params.dtw_token_timestamps;
                if (aligned && wstate.aheads_masks.m[il] != nullptr) {
                    struct ggml_tensor * keys =
                        ggml_view_3d(ctx0, wstate.kv_cross.k,
                                n_state_head, n_audio_ctx, n_head,
                                ggml_element_size(wstate.kv_cross.k)*n_state,
                                ggml_element_size(wstate.kv_cross.k)*n_state_head,
                                ggml_element_size(wstate.kv_cross.k)*n_state*n_audio_ctx_pad*il);
                    struct ggml_tensor * weights =
                        ggml_soft_max_ext(ctx0, ggml_mul_mat(ctx0, keys, Q), nullptr, KQscale, 0.0f);
                    struct ggml_tensor * by_head = ggml_cont(ctx0, ggml_transpose(ctx0,
                        ggml_reshape_2d(ctx0, weights, weights->ne[0]*weights->ne[1], weights->ne[2])));
                    struct ggml_tensor * mask = wstate.aheads_masks.m[il];
                    struct ggml_tensor * chosen = ggml_reshape_3d(ctx0,
                        ggml_cont(ctx0, ggml_transpose(ctx0, ggml_mul_mat(ctx0, mask, by_head))),
                        weights->ne[0], weights->ne[1], mask->ne[1]);
                    aheads_cross_QKs =
                        aheads_cross_QKs == nullptr ? chosen : ggml_concat(ctx0, aheads_cross_QKs, chosen, 2);
                }

                cur = ggml_flash_attn_ext(ctx0, Q, Kcross, Vcross, nullptr, KQscale, 0.0f, 0.0f);
""",
    ),
)
"""Pairs of old and new text of whisper.cpp's `src/whisper.cpp`."""


def apply(source: str) -> str:
    """Return the changed source. Raises ValueError if a text does not occur exactly once."""
    for old, new in CHANGES:
        if source.count(old) != 1:
            raise ValueError(f"whisper.cpp has changed, this text does not occur once:\n{old}")
        source = source.replace(old, new)
    return source
