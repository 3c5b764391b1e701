"""What each step does. Knows ViT, images and training; knows no Ray, no YAML and no S3."""

if __name__ != "vitpipe.stages":  # the same modules under two names would be two classes of everything
    raise ImportError("import it as vitpipe.stages")
