"""`axes`: do the samples have the orientation of the real volumes?"""
