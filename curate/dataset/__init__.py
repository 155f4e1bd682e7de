"""The workspace on disk: layout, uid, shards, commit records. The only code that knows paths."""
