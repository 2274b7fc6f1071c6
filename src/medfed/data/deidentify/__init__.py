"""De-identification of DICOM files: a clean copy of a folder, after the basic profile of DICOM PS3.15, annex E.

It needs the extra ``imaging``; what is covered and what is not: ``docs/explanation/de-identification.md``.
"""
