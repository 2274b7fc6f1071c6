"""Sums under homomorphic encryption: CKKS (Cheon et al. 2017, ASIACRYPT) by TenSEAL, of whole numbers alone.

One site makes a secret key for one sum and seals it for the others; the coordinator adds ciphertexts, and holds no key.
A site that survives decrypts the total, after it has checked by a linear authenticator that it is that of the sites'
contributions. Totals are rounded to whole numbers, so that they are exact, and nothing of CKKS's noise is shown: an
approximate result would give the key away (Li & Micciancio 2021, EUROCRYPT, section 3).
The docs (explanation/homomorphic-encryption.md) state who learns what from whom.
"""
