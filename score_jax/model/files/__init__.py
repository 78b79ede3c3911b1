"""The formats that weights come in, and what a source means.

locate finds a source; safetensors_file, gguf_file and saved_params (our own checkpoints) read
tensors; config_formats and gguf_shape read the model's shape; tensor_names says which tensor is
which parameter, stored how it lies in the file.
"""
