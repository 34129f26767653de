"""What is sent, to which server, and one measurement each of what comes back."""
