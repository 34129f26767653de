"""From files of weights to arrays: safetensors and pickles, mapped into memory and read when they are touched."""
