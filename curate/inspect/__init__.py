"""Looking at a workspace: status, explain, query, doctor."""
