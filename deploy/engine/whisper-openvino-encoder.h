// Interface of whisper.cpp's OpenVINO encoder, with the number of threads of each call.

#pragma once

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_tensor;
struct whisper_openvino_context;

// Reads the encoder; returns null if that fails. cache_dir is not used.
struct whisper_openvino_context * whisper_openvino_init(
    const char * path_model, const char * device, const char * cache_dir);

void whisper_openvino_free(struct whisper_openvino_context * ctx);

// Encodes mel (3000 frames x mels) into out (width x 1500). Returns 1, or 0 if that fails.
int whisper_openvino_encode(
    struct whisper_openvino_context * ctx, struct ggml_tensor * mel, struct ggml_tensor * out, int threads);

#ifdef __cplusplus
}
#endif
