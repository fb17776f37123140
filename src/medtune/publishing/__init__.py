"""What people use: answers on demand."""
