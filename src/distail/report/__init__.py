"""Tables for the terminal and Markdown, one self-contained HTML page, and static figures."""
