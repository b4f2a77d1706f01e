/* How the private sshd of a job differs from dropbear's default_options.h: one key, no password, no forwarding. */

#define UDI_AUTHORIZED_KEYS "/opt/udi/etc/authorized_keys"
#define UDI_KNOWN_HOSTS "/opt/udi/etc/known_hosts"
#define DROPBEAR_DEFAULT_CLI_AUTHKEY "/opt/udi/etc/ssh_key"
#define DROPBEAR_PIDFILE ""

#define DROPBEAR_SVR_PASSWORD_AUTH 0
#define DROPBEAR_SVR_PAM_AUTH 0
#define DROPBEAR_CLI_PASSWORD_AUTH 0
#define DROPBEAR_USE_PASSWORD_ENV 0

#define DROPBEAR_X11FWD 0
#define DROPBEAR_SVR_AGENTFWD 0
#define DROPBEAR_CLI_AGENTFWD 0
#define DROPBEAR_SVR_LOCALTCPFWD 0
#define DROPBEAR_SVR_REMOTETCPFWD 0
#define DROPBEAR_CLI_LOCALTCPFWD 0
#define DROPBEAR_CLI_REMOTETCPFWD 0
#define DROPBEAR_CLI_PROXYCMD 0
#define DROPBEAR_CLI_NETCAT 0
#define DROPBEAR_SFTPSERVER 0

/* This version does not build without RSA; the job's one key is ed25519. */
#define DROPBEAR_RSA 1
#define DROPBEAR_RSA_SHA1 0
#define DROPBEAR_ECDSA 0
#define DROPBEAR_ED25519 1
#define DROPBEAR_SK_KEYS 0
#define DROPBEAR_DH_GROUP14_SHA1 0
#define DROPBEAR_DH_GROUP14_SHA256 0
#define DROPBEAR_ECDH 0
#define DROPBEAR_SHA1_HMAC 0
#define DROPBEAR_DELAY_HOSTKEY 0
#define DROPBEAR_SMALL_CODE 0

#define DO_MOTD 0
#define INETD_MODE 0

/* A launcher opens as many sessions at once as the job has nodes. */
#define MAX_UNAUTH_PER_IP 256
#define MAX_UNAUTH_CLIENTS 512
#define DEFAULT_KEEPALIVE 30
#define DEFAULT_RECV_WINDOW 262144
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin"
