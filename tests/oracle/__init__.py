"""What the engines are compared with: the operations in NumPy, an engine made of them, and the recorded outputs."""
