"""The real jobs of the report."""
