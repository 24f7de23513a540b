// OpenVINO encoder for whisper.cpp. It replaces the file of the same name, which compiles the model for all cores.
//
// The model is compiled for the threads of a call when they are first asked for. Its `runtime_options` (saved by
// worker/whisper_encoder.py) are the properties to compile it with.

#include "openvino/whisper-openvino-encoder.h"

#include "ggml.h"

#include <openvino/openvino.hpp>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

// Compiled forms kept for different numbers of threads; each has a copy of the weights.
static const size_t MAX_FORMS = 2;
static const char * const OPTIONS[] = {"INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE"};

// Frames of a whole window, which the encoder always reads, and of its output.
static const size_t FRAMES = 3000;

struct whisper_openvino_context {
    ov::Core core;
    std::string device;
    std::shared_ptr<ov::Model> model;
    std::map<int, ov::InferRequest> requests;
};

static ov::InferRequest & request_for(whisper_openvino_context & ctx, int threads) {
    auto found = ctx.requests.find(threads);
    if (found != ctx.requests.end()) {
        return found->second;
    }
    if (ctx.requests.size() >= MAX_FORMS) {
        ctx.requests.erase(ctx.requests.begin());
    }
    ov::AnyMap properties = {
        ov::inference_num_threads(threads),
        ov::num_streams(1),
        ov::hint::enable_cpu_pinning(false),
        ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
    };
    for (const char * option : OPTIONS) {
        if (ctx.model->has_rt_info("runtime_options", option)) {
            properties[option] = ctx.model->get_rt_info<std::string>("runtime_options", option);
        }
    }
    ov::CompiledModel compiled = ctx.core.compile_model(ctx.model, ctx.device, properties);
    return ctx.requests.emplace(threads, compiled.create_infer_request()).first->second;
}

struct whisper_openvino_context * whisper_openvino_init(const char * path_model, const char * device, const char *) {
    if (!path_model || !device) {
        return nullptr;
    }
    try {
        std::unique_ptr<whisper_openvino_context> ctx(new whisper_openvino_context);
        ctx->device = device;
        ctx->model = ctx->core.read_model(path_model);
        return ctx.release();
    } catch (const std::exception & error) {
        fprintf(stderr, "%s: %s\n", __func__, error.what());
        return nullptr;
    }
}

void whisper_openvino_free(struct whisper_openvino_context * ctx) {
    delete ctx;
}

// Returns mel for a whole window. A shorter one, of language detection, is followed by silence: its lowest value.
static std::vector<float> whole_window(const ggml_tensor * mel) {
    const size_t frames = mel->ne[0];
    const size_t bands = mel->ne[1];
    const float * values = static_cast<const float *>(mel->data);
    std::vector<float> window(bands * FRAMES, *std::min_element(values, values + frames * bands));
    for (size_t band = 0; band < bands; ++band) {
        std::copy_n(values + band * frames, std::min(frames, FRAMES), window.begin() + band * FRAMES);
    }
    return window;
}

int whisper_openvino_encode(
    struct whisper_openvino_context * ctx, struct ggml_tensor * mel, struct ggml_tensor * out, int threads) {
    try {
        ov::InferRequest & request = request_for(*ctx, threads);
        std::vector<float> window = whole_window(mel);
        const ov::Shape shape = {1, static_cast<size_t>(mel->ne[1]), FRAMES};
        request.set_input_tensor(ov::Tensor(ov::element::f32, shape, window.data()));
        request.infer();
        const ov::Tensor encoded = request.get_output_tensor();
        if (encoded.get_size() < static_cast<size_t>(ggml_nelements(out))) {
            fprintf(stderr, "%s: the encoder does not belong to the model\n", __func__);
            return 0;
        }
        std::copy_n(encoded.data<float>(), ggml_nelements(out), static_cast<float *>(out->data));
        return 1;
    } catch (const std::exception & error) {
        fprintf(stderr, "%s: %s\n", __func__, error.what());
        return 0;
    }
}
