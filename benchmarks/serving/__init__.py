"""Our service under load, beside its peers: `python -m benchmarks.serving --help`.

Read it in this order: `plan` (what a load is), `loops` and `load_client` (how it is sent), `numbered` (which texts), `systems` and `peers`
(what is measured), then one file a scenario: `throughput`, `overhead`, `offered`, `latency`, `lanes`, `overload`, `memory`, `rerank`,
`profile`.
"""
