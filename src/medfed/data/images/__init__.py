"""Images: decoded in a guarded process, brought to one form, and kept on disk by their content."""
