"""Makes training text from images' facts: the offline rule teacher."""
