/** Which standards the engine speaks, where one starts to read, and what of them is left out, and why: for docs/ikev2.md. */

export interface Standard {
  readonly name: string
  readonly what: string
  /** Of the sources; it cites the standard. */
  readonly where: string
  /** Absent: nothing that an overlay could want. */
  readonly leftOut?: string
}

export const STANDARDS: readonly Standard[] = [
  {
    name: 'RFC 7296',
    what: 'IKEv2',
    where: 'src/ikev2/sa.ts',
    leftOut:
      'EAP and certificates of authorities: keys are pinned. Transport mode, AH, IPComp. A second Child SA: an IKE SA has the one it was made for. IPv6 in tunnels, and so IPv6 addresses by configuration: who asks for both kinds gets IPv4. A window of more than one request',
  },
  {
    name: 'RFC 8247',
    what: 'algorithms for IKE',
    where: 'src/ikev2/proposal.ts',
    leftOut: 'AES-CBC with HMAC, and MODP groups: AEADs and elliptic curves alone',
  },
  {
    name: 'RFC 8221',
    what: 'algorithms for ESP',
    where: 'src/crypto/suites.ts',
    leftOut: 'AES-CBC with HMAC',
  },
  { name: 'RFC 5282', what: 'AEADs in IKE', where: 'src/ikev2/message/encrypted.ts' },
  { name: 'RFC 7634', what: 'ChaCha20-Poly1305', where: 'src/crypto/suites.ts' },
  { name: 'RFC 4106', what: 'AES-GCM in ESP', where: 'src/crypto/suites.ts' },
  { name: 'RFC 8031', what: 'X25519', where: 'src/ikev2/groups.ts', leftOut: 'X448' },
  {
    name: 'RFC 5903',
    what: 'P-256, where a stock peer has no X25519',
    where: 'src/ikev2/groups.ts',
    leftOut: 'P-384, P-521',
  },
  {
    name: 'RFC 7427',
    what: 'signatures: ECDSA and RSASSA-PSS with SHA-2',
    where: 'src/ikev2/signature.ts',
    leftOut: 'SHA-1, and RSASSA-PKCS1-v1_5, whose verifiers were too kind for too long',
  },
  { name: 'RFC 8420', what: 'Ed25519', where: 'src/ikev2/signature.ts', leftOut: 'Ed448' },
  { name: 'RFC 7670', what: 'raw public keys in CERT, of whom is asked', where: 'src/ikev2/raw-key.ts' },
  { name: 'RFC 7619', what: 'NULL authentication: clients are nobody', where: 'src/ikev2/proof.ts' },
  {
    name: 'RFC 7383',
    what: 'fragments',
    where: 'src/ikev2/message/fragment.ts',
    leftOut: 'a search for the MTU: no datagram of ours is over 1200 octets',
  },
  {
    name: 'RFC 5723',
    what: 'resumption, of first hops and between nodes',
    where: 'src/ikev2/resumption/tickets.ts',
    leftOut: 'tickets by reference',
  },
  { name: 'RFC 9242', what: 'IKE_INTERMEDIATE', where: 'src/ikev2/exchange/intermediate.ts' },
  {
    name: 'RFC 9370',
    what: 'an additional key exchange, ML-KEM-768 (draft-ietf-ipsecme-ikev2-mlkem)',
    where: 'src/ikev2/exchange/intermediate.ts',
    leftOut: 'more than one',
  },
  {
    name: 'draft-ietf-ipsecme-ikev2-downgrade-prevention',
    what: 'AUTH covers both messages of IKE_SA_INIT',
    where: 'src/ikev2/transcript.ts',
  },
  {
    name: 'RFC 8019',
    what: 'cookies and puzzles under load',
    where: 'src/ikev2/gate.ts',
    leftOut:
      'a second puzzle, for IKE_AUTH (section 7.2). Its solution can only be read when the keys are computed, and that the first puzzle guards; what is left then is one signature. An initiator would work twice for every hop, at a moment and for a time that the node chooses: that tells clients apart. N(PUZZLE) beside a chosen proposal is ignored',
  },
  { name: 'RFC 9593', what: 'how a peer may prove itself', where: 'src/ikev2/methods.ts' },
  { name: 'RFC 3948', what: 'ESP in UDP, on the first hop', where: 'src/ikev2/nat.ts' },
  {
    name: 'RFC 4555',
    what: 'MOBIKE, on the first hop',
    where: 'src/ikev2/mobility.ts',
    leftOut: 'ADDITIONAL_IP4_ADDRESS: it names the other addresses of a host',
  },
  {
    name: 'RFC 9347',
    what: 'nothing yet',
    where: '',
    leftOut:
      'ESP of constant rate between nodes. The kernel has it since 6.14, the userspace plane not at all; so the rate of a link still shows how much its circuits carry',
  },
]
