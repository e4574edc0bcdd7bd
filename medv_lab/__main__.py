"""`python -m medv_lab` is the command `medv`."""

from medv_lab.cli import app

app(prog_name="medv")
