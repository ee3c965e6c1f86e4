"""The Gradio front, which talks HTTP to the service and nothing else. Not built yet."""
