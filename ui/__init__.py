"""The Gradio front, which talks HTTP to the service and nothing else. It has an environment of its own."""
