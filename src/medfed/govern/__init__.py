"""What a site allows, what it released, and the proof of both: gate, keys, ledger and its verification."""
