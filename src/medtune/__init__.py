"""medtune fine-tunes a chat model for medical question answering with QLoRA and proves what that changed."""

__version__ = "0.1.0"
