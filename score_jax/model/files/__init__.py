"""The file formats of weights, and how a source is found.

locate finds a source; safetensors_file, gguf_file and saved_params (our own checkpoints) read
tensors; config_formats and gguf_shape read the model's shape; tensor_names maps tensors to
parameters; stored is a tensor that is still in its file.
"""
