#!/bin/sh
# Service and page of a Space, until one of them or the container ends; visitors can ask and change nothing.
# Arguments are passed on to `modiste demo`.
exec modiste demo --catalog catalog --gallery gallery --host 0.0.0.0 --port "${PORT:-7860}" --service-port 0 \
    --allow-host "${SPACE_HOST:-localhost}" --allow-frame https://huggingface.co --read-only "$@"
