"""What generates. Settings to arguments (`spec`), and the proof that each technique did something (`evidence`); vLLM in
this process (`local`, `processes`), or any OpenAI-compatible server (`remote`, over `api` and `tokens`)."""
