"""The vLLM side: settings to engine arguments (`spec`), an engine in this process (`local`), and the
proof that each technique did something (`evidence`)."""
