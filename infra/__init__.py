"""How the world is touched: stores, Ray, ranks, numbers, logs. Knows nothing of ViT or of any stage."""

if __name__ != "vitpipe.infra":  # the same modules under two names would be two classes of everything
    raise ImportError("import it as vitpipe.infra")
