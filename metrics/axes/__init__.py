"""`axes`: do the samples lie as the real volumes do?"""
