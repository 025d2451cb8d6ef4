"""The pipeline that makes the mini voice from nothing but a formant synthesiser; one folder, one command, resumable."""
