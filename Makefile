# make ask Q="What causes malaria?"    every verb sets up what it needs, once
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed-$(DEVICE)
DEV := .venv/.installed-$(DEVICE)-dev
export PYTHON
# Half of a training's time on a CPU went into memory that was given back and asked for again.
train-%: export MALLOC_MMAP_MAX_ = 0
train-%: export MALLOC_TRIM_THRESHOLD_ = 17179869184

.DEFAULT_GOAL := help
.PHONY: help setup ask test lint fmt check lock clean recall followups answers \
	bench bench-start bench-reranker bench-generator bench-support bench-retrieval bench-index bench-serve \
	bench-breakdown bench-sweep bench-cache bench-batch soak-index soak-cache \
	train train-reranker train-generator train-support train-matcher eval

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "make %-16s %s\n", $$1, $$2}'

setup: $(INSTALLED)  ## install, build the models and the sample index
	@$(BIN)/rag models build
	@$(BIN)/rag index --sample

ask: $(INSTALLED)  ## answer Q from the sample corpus: make ask Q="What causes malaria?" [ARGS=...]
	@$(BIN)/rag ask --sample $(ARGS) -- "$$Q"

test: $(DEV)  ## all tests, on the real engine and models
	@$(BIN)/pytest -n 2 $(ARGS)

lint: $(DEV)  ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

fmt: $(DEV)  ## format and mend with ruff
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

check: lint  ## ruff and mypy, then the tests
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory test

lock:  ## resolve requirements/*.lock anew
	@scripts/lock.sh

bench: bench-start bench-breakdown bench-reranker bench-generator bench-support bench-retrieval bench-index bench-serve bench-cache bench-batch  ## every benchmark but sweeps, into eval/results/; needs RAG_DATASETS=FOLDER

bench-start: $(DEV)  ## process start to first token, against a bare vLLM script
	@$(BIN)/rag bench start $(ARGS)

bench-reranker: $(DEV)  ## nDCG and hits of the reranker against fusion; needs RAG_DATASETS=FOLDER, like the next four
	@$(BIN)/rag bench reranker $(ARGS)

bench-generator: $(DEV)  ## citations, wording and refusals of the generator and its base
	@$(BIN)/rag bench generator --model smollm2-grounded --model smollm2-135m-instruct $(ARGS)

bench-support: $(DEV)  ## AUROC of the support checker, and what it finds of each kind of mistake
	@$(BIN)/rag bench support $(ARGS)

bench-retrieval: $(DEV)  ## each stage of a search over 50,000 passages; BM25 beside rank-bm25
	@$(BIN)/rag bench retrieval $(ARGS)

bench-index: $(DEV)  ## encoding against sentence-transformers, what is lost by it, a large build, updates; goes on where it stopped
	@$(BIN)/rag bench index $(ARGS)

bench-serve: $(DEV)  ## a warm rag ask; the engine killed and clients gone in the middle of answers; goes on where it stopped
	@$(BIN)/rag bench serve $(ARGS)

bench-breakdown: $(DEV)  ## where the time of V3, V3.1, V3.2 and the default goes, stage by stage; goes on where it stopped
	@$(BIN)/rag bench breakdown $(ARGS)

bench-sweep: $(DEV)  ## what the values of a setting take and give: make bench-sweep OVER=context.passages=3,5,10,15
	@$(BIN)/rag bench sweep --over "$(OVER)" $(ARGS)

bench-cache: $(DEV)  ## wrong hits and hits of the query cache, beside a cosine's; what a hit takes and a skewed trace gains; needs RAG_DATASETS
	@$(BIN)/rag bench cache --set cache.model=minilm-same-question $(ARGS)

bench-batch: $(DEV)  ## 120 questions one after the other, all at once, and as rag batch asks them
	@$(BIN)/rag bench batch $(ARGS)

soak-cache: $(DEV)  ## the query cache under 16 threads for 60 seconds, and ten times as many random histories as the tests have
	@$(BIN)/python scripts/soak_cache.py $(ARGS)

soak-index: $(DEV)  ## 1,000 kills of rag index, 10,000 changed bytes, 100 updates under readers; goes on where it stopped
	@$(BIN)/python scripts/soak_index.py $(ARGS)

train: train-reranker train-generator train-support train-matcher  ## the embedded models, into training/; needs RAG_DATASETS=FOLDER

train-reranker: $(DEV)  ## the reranker; goes on where it stopped, like the others
	@$(BIN)/python scripts/train_reranker.py $(ARGS)

train-generator: $(DEV)  ## the generator; takes some hours on two cores
	@$(BIN)/python scripts/train_generator.py $(ARGS)

train-support: $(DEV)  ## the support checker
	@$(BIN)/python scripts/train_support.py $(ARGS)

train-matcher: $(DEV)  ## the matcher of questions
	@$(BIN)/python scripts/train_matcher.py $(ARGS)

eval: $(DEV)  ## the 120 questions over the sample corpus: figures and report in eval/results/; goes on where it stopped
	@$(BIN)/rag eval $(ARGS)

recall: $(DEV)  ## recall of gold documents on dev_60: dense, lexical, fused, reranked
	@$(BIN)/python scripts/recall.py $(ARGS)

followups: $(DEV)  ## recall in conversations, with follow-up questions completed and without
	@$(BIN)/python scripts/followups.py $(ARGS)

answers: $(DEV)  ## ten answers from dev_60, as they are
	@$(BIN)/python scripts/answers.py $(ARGS)

clean:  ## remove the virtual environment; models and indexes stay
	@rm -rf .venv

$(INSTALLED): requirements/$(DEVICE).lock requirements/torch-cpu.txt pyproject.toml scripts/install.sh
	@scripts/install.sh $(DEVICE)
	@touch $@

$(DEV): $(INSTALLED) requirements/dev.lock requirements/train.lock requirements/mpnet.txt
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes \
		-r requirements/dev.lock -r requirements/train.lock -r requirements/mpnet.txt
	@touch $@
