"""`python -m medv_lab` is the command `medv`."""

from medv_lab.cli.main import app

app(prog_name="medv")
