"""The four stages; each reads what is before it, writes its own files, and marks itself complete last."""
