#!/bin/sh
# Remove from a folder of Python packages what the service never loads: OpenVINO's plugins for other devices and its
# readers of other formats, headers, and the packages' own tests. Engines are tried in the container by tests/containers.
set -eu
cd "$1"
rm -rf openvino/include openvino/cmake openvino/torch
cd openvino/libs
rm -f cache.json tbb.pc libopenvino_intel_gpu_plugin.so libopenvino_intel_npu_plugin.so libopenvino_auto_plugin.so \
	libopenvino_auto_batch_plugin.so libopenvino_hetero_plugin.so libopenvino_c.so.*
for format in gguf jax onnx paddle pytorch tensorflow tensorflow_lite; do rm -f "libopenvino_${format}_frontend.so".*; done
cd ../..
find . -type d -name tests -prune -exec rm -rf {} +
find . -name '*.pyi' -delete
