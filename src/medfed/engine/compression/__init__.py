"""Sending less: updates rounded, or cut to their largest elements, before they leave a site."""
