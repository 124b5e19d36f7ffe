"""The marketplace: agents register, are listed, resolved, found, and have a mailbox, as with Agentverse."""
