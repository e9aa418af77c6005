# The words of these files that are yours. Set them here; then, once in each shell:  . cluster/words.sh
# `cluster/fill.py` puts them where ${WORD} stands, and names those that are needed and empty.

export REGISTRY=   # where images are kept: 123456789012.dkr.ecr.eu-central-1.amazonaws.com
export IMAGE="$REGISTRY/raycsr:0.1.0-ray2.60.0"   # better, once it is pushed: "$REGISTRY/raycsr@sha256:..."
export DATA=       # the images: s3://bucket/imagenet/val
export CHECKPOINT= # the classifier: s3://bucket/resnet50_sigma050.pth.tar
export RESULTS=    # where results go: s3://bucket/results
export DEPLOYED=   # the service alone: what SmoothedClassifier.save wrote, s3://bucket/deployed
export LOGS_BUCKET= # extras/logs alone: a bucket's name, without s3://
export ACCOUNT=    # AWS alone: the account of the roles, 123456789012
export REGION=     # AWS alone: eu-central-1

# EC2 alone
export VPC=            # vpc-...
export YOUR_ADDRESS=   # from where you log in: 203.0.113.7
export SECURITY_GROUP= # sg-..., which the first command of README.md, 2b, prints
export AMI=            # ami-..., which the last one prints
