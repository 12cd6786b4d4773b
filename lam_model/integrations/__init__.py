"""LAM in vector databases and frameworks: classes that fit their interfaces, on ONNX Runtime, without torch.

Each module is named after its tool, and needs it.
"""
