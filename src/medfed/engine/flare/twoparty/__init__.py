"""A guest and a host who train together without anybody between them: the guest's process coordinates."""
