"""How an address and a port are written."""


def place(address: str, port: int) -> str:
    """`127.0.0.1:80`, `[::1]:80`"""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
