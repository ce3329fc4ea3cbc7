"""The store: readers, framers, the journal and the uplink of one till."""
