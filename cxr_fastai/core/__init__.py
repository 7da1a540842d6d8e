"""What every room uses: whole files or none, progress, style, worker processes, what is installed. No torch."""
