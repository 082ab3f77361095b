"""The colour map of attention maps: matplotlib's viridis, even in brightness (van der Walt and Smith, 2015, CC0)."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import ArrayLike, NDArray

CODE = (
    "L;+Mp0#-!?S49O`Mh99(2wX-AT}BIDM-5;{4q-<SV@DBWM-yd86lX{lXh;`nNEm8J8f-`#ZAct$NF8rTA8<$@aY!L^NF#JeBy~t7"
    "c1R|7NGNznDS1aKdPgjJM=g6tE__EXeMT^TMlyazGk-=jfJHTdMK^&(ID$kugG4%mL_35-J%mF(g+f1tLO_N>L54v>he1S#Kt+f^"
    "Mu<O0h(Ab)K1qo_N{K#9iakw=Jx+=|Pl`NHi#t(^J5q}}Q;RxOj5$?|IaZ7~Sd2JXj5k`0H(QN1T#YtejWu44HD8T1V2w0kjWc46"
    "Gh>Z1WR5arjxlDAF=vi3XpS&xjxcJDFKdo3Y>qB%jxKJFE^m%4aE>i;jx2GGEOL%4bB-%?jw^MJDt3-4caAD}jwyMLDSD16dyXi4"
    "jwpSOCw`76e~u@BjwXSQCW4M8f{rDFjwOVSC54V8hK?kMjw6VUBZ-b9ij5+RjUtSVB8`n9j*TIYjUkYYA(4zAl8hjdj3ASYAC!zA"
    "m5U#iiyxPZADD|DnTj8piXNMa9-N6Dorxcwi65VcAE1aIp@<)$haaMcAftvLq=q4-g(0SeBBzBSsDvY_gCwehC98rZtb!)3fhVnj"
    "D6W7huYW4Ae=M<nEwX(svwSbKd@;3qGPZg&ws|$Tc{jLtIJtK^x^_Febv?XvKfH55y>ddnaYVmxM!;`K!EQ>yZA`*!PQz<Z#A;H-"
    "X;j5%R>o&o$7Nc`WL(H&Uddu$%3x#5UuDZ)XUtq_&0B2ET5ir*aL-qB&{lQORCm!+deKpQ(olcXPJz=+gw#uh)k%rfNQ>4+j@Ctx"
    "*F%%nL6z7*nAkp>**u-uJD}P*qS`m5+cv1%G^*S(t=urM-7m7;Ew$b&xZWwc-YC7_Ccxh%!rvps;33H1Aj;t%&EXx;;T+Q98`a_("
    "*y0)5;~CxK7~kU<;^Y|R<QeDW8S3R4?ByHp<s9+l9rWfN_U0h?<{|s%BmL(k"
)

COLOURS = np.frombuffer(base64.b85decode(CODE), np.uint8).reshape(256, 3) / 255
"""Red, green and blue from 0 to 1, from the least value to the greatest."""


def viridis(values: ArrayLike) -> NDArray[np.float64]:
    """Colours ``(..., 3)`` of values from 0 to 1; of others those of the nearer end."""
    return COLOURS[np.clip(np.asarray(values) * 256, 0, 255).astype(int)]
