class Recorder:
    def __call__(self, event):
        pass


def progress_listener(progress):
    return None
