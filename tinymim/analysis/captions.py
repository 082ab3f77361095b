"""Captions of the measures: what each is, and what the paper found for three kinds of training."""

RANDOM = "random:"
"""Begins the source of a network with random weights."""

MEASURES = ("heads", "cka", "relations")
"""What can be measured."""

SOURCE = (
    'Xie et al., "Revealing the Dark Secrets of Masked Image Modeling" (arXiv 2205.13543), for ViT-B, as its abstract '
    "and published reading notes tell"
)

DISTANCE = (
    "Attention distance: for each head the distance in pixels between a query's patch and the patches it attends to, "
    "weighted by attention, mean over queries and images. Small is local."
)
DISTANCE_PAPER = (
    "Supervised (DeiT) and contrastive (MoCo v3) networks look near in their first blocks and far in their last; "
    f"SimMIM mixes near and far heads in every block, and its distance falls slightly with depth ({SOURCE})."
)
ENTROPY = (
    "Entropy of attention, in nats, mean over queries and images. Low is focused, high is broad; uniform attention to "
    "N patches has ln N."
)
ENTROPY_PAPER = (
    "Nearly all heads of supervised and contrastive networks are broad in the last blocks; those of SimMIM keep a wide "
    f"spread in every block ({SOURCE})."
)
DIVERSITY = (
    "Head diversity: the KL divergence between the attention maps of a head and of each other head of its block, mean "
    "over those, queries and images. 0 is heads that do the same."
)
DIVERSITY_PAPER = (
    "It stays high in all blocks of SimMIM; in supervised and contrastive networks it shrinks with depth, and almost "
    f"vanishes in the last three of twelve ({SOURCE})."
)
CKA = (
    "Linear CKA of what two blocks give out over the same images, from 0 (nothing in common) to 1 (the same up to "
    "rotation and scale), by the unbiased estimator over minibatches."
)
CKA_PAPER = (
    "The blocks of a supervised network differ, from about 0.5 to 1; those of contrastive and masked ones are nearly "
    f"alike, from about 0.9 to 1 ({SOURCE})."
)
AGREEMENT = (
    "Relation agreement: KL from the teacher's relations to the student's, with the student's channels in the "
    "teacher's heads, at every pair of blocks. qk is the attention map, vv the likeness of values. It is the loss that "
    "relation distillation (TinyMIM, arXiv 2301.01296) brings down at one pair, which is framed where the student's "
    "run says which."
)
