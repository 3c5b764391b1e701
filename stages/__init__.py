if __name__ != "vitpipe.stages":  # the same modules under two names would be two classes of everything
    raise ImportError("import it as vitpipe.stages")
