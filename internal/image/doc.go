// Package image keeps the images that instances stand on: it gets them from
// registries, archives and folders, makes one root file system of each, knows them
// by name, and removes those that nobody needs.
//
// # What is kept
//
// All is below data/images of the home, and is looked at anew each time: nothing of
// it is held in memory.
//
//   - roots/HEX.erofs: a root file system, known by the digest of what it was made
//     of. Images of the same layers share one.
//   - records/HEX.json: an image, known by the digest of its description (its config,
//     in the words of the OCI), as in Docker.
//   - tags/HEX.json: a name, normalised as Docker does, and the image it means.
//   - layers/HEX: layers as registries have them, compressed; HEX.part is one that is
//     on its way, and is gone on with. They are a cache: images that share layers get
//     each once.
//
// Each file is written whole or not at all, records after the roots they speak of,
// tags last. The image that set-up made is an image like the others, with the name
// "base"; its root is a hard link to set-up's file.
//
// # How a root is made
//
// Layers are decompressed, checked and flattened in one pass, while later ones are
// still on their way. Package rootfs writes the EROFS file: nothing is ever unpacked
// on the host. Memory holds names, not data.
//
// # Who needs what
//
// An image is needed by the names that mean it and by the instances that stand on
// it. Whoever is at work with one pins it. Collect removes the rest.
//
// Everything from registries, archives and guests is hostile: sizes and counts have
// limits, all that has a digest is checked, and no name of an archive becomes a path
// of the host. The package is an adapter: it implements instance.Images, and knows
// no other adapter but rootfs.
package image
