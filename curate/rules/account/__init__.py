"""The account of an experiment: what each rule cost, why a sample is in or out, and reading it again."""
