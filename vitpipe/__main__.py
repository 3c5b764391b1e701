"""The command line as a module: `python -m vitpipe`."""

from vitpipe.pipeline.cli.main import main

if __name__ == "__main__":
    main()
